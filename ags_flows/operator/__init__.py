"""What an operator does from a terminal: look at sandboxes, look into one, run something, mend what is wrong."""
