"""Whether this worker can serve: the database, its schema, the connection budget."""
