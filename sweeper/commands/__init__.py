"""The verbs of the `sweeper` command: each is `command` in the file of its name, and listed in
`sweeper.cli`. What several of them share is in `sweeper.options`; what they do is elsewhere."""
