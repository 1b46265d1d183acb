-- An order's row is changed when it is settled, and a hold's when it is held. With room on its page the new version stays there, and no
-- index is touched.
ALTER TABLE orders SET (fillfactor = 50);
