"""The warm worker process: protocol, server, client."""
