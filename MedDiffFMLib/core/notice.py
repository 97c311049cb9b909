"""What everything that is made here must not be used for."""

NOTICE = "Research use only. Not a medical device; do not use for diagnosis or treatment."
