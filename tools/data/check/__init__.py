"""What makes a data set fit for a result; the command is tools/check_data.py."""
