"""Delivery: answers into the application's own database, events to its commands and webhooks, records out of it.

Everything here takes plain values and gives outcomes. What is due, what was tried and when to try again is kept by the
caller; nothing here sleeps, retries or remembers.
"""
