"""What belongs to a whole sweep: `python -m sweeps report FOLDER`."""
