"""The page that answers videos: a server for this machine alone, and a worker process."""
