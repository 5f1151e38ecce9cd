"""An engine with the surface of Dassl 0.6.3 and nothing else, for tests of what trainers need.

Put its folder first on the path. It does what upstream documents and how upstream fails: it prints,
pickles the schedule after a warm-up as an object, starts workers anew for each pass, and knows
nothing of the project. Its configuration keys are those of `engine/`, which has no others.
"""

__version__ = "0.6.3"
