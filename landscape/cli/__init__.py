"""The command `landscape`: parse, call, print. No mathematics here."""
