"""What the command line, notebooks and tests call: one file a verb, joining the rooms below."""
