"""The commands that samrec adds to `landscape`, one file each."""
