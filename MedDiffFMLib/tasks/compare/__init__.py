"""Task "compare": two CTs of one patient, what changed between them."""
