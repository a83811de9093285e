"""How debts are settled in the end: each way is a rail, and all of them are one small interface."""
