"""What gmsa needs of the machine: files, locks, processes, devices, and the command line."""
