"""Hostile files and messages against every reader: ``python -m Testing.fuzz --inputs 100000 --seed 1``.

Each input is a pure function of (seed, number): valid files and messages, made on the spot, with bytes, numbers and
names changed at random. What comes out of a reader must be a result or a :class:`MedDiffFMError` with cause and remedy.
"""
