"""A room for each vendor: what it is like, and how it words things; pure, and loading no SDK.

``vendors``  the one table of them
``base``  what each must say of itself, and the values that its words become
``openai``, ``anthropic``  one file a vendor
``reading``, ``schema_parts``  what they have in common: reading words, counts and times; walking answer schemas

The connections are in :mod:`nura_cli.providers`.
"""
