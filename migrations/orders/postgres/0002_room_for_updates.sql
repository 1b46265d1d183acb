-- An order's row is changed once, when it is settled. With room on its page the new version stays there, and no index is touched.
ALTER TABLE orders SET (fillfactor = 50);
