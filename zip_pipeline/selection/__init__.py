"""Pool and budget to picks: ZIP, long-range ZIP, other strategies, and the ledger of fates."""
