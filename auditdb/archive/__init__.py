"""Archive: whole months as Parquet files, which outlast the database and need nobody's word."""
