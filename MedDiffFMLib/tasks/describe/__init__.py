"""Sentences about a CT, each with what it rests on."""
