"""An application: CSV files that are dropped in a folder become orders in a ledger."""
