"""Faults at random moments, and what must hold after each: ``python -m Testing.faults --faults 200 --seed 1``.

Whatever happens to a command, no visible file is damaged, no process and no temporary file is left, a failure is
explained in words, and the same command given again ends with the files of an undisturbed run.
"""
