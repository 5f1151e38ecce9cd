"""Where the files of data sets come from, and unpacking; the commands are tools/*_data.py."""
