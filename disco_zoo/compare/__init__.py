"""`disco-zoo compare`: several recipes on one budget, in one table and one picture."""
