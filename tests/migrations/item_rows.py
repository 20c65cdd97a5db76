"""Rows of the table `items`, for the test that each revision can be downgraded."""

TABLE = "items"

FILL = """
INSERT INTO items (name, description, price, is_active)
SELECT 'Item ' || n, CASE WHEN n % 3 = 0 THEN 'About ' || n END, n / 100.0, n % 7 > 0 FROM generate_series(1, 500) AS n
"""

ROWS = "SELECT id, name, description, price, is_active, created_at, updated_at FROM items ORDER BY id"
