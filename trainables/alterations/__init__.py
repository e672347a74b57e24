"""Images as they look elsewhere: common corruptions and visual factors, each at five severities."""
