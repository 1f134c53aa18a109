"""What a structure is, whatever it is used for: its units and the limits that it must keep."""
