"""The model that trains: the base, the method put into it, the best weights kept and read back."""
