"""The Spotlighter head: keep the patches that matter, compare them with prototypes of each class.

The files in the order of docs/method.md, whose sections they implement:

memory, whiten    prototypes, and the space in which features are compared (section 2)
select            score every patch, keep the top K (section 3)
rank              divide kept patches into two levels, compare them with prototypes (section 4)
head              weigh ranks and levels beside the base's logits (section 5)
evidence          fill the bank, fit the weights (models/fit.py) to pictures not in it (section 6)
model             a prompt tuner with the head on it, and the loss (section 7)
options           the config keys of a head
"""

LEVELS = ("global", "1", "2", "both")  # whose weights are fitted
KINDS = ("inherit", "text")  # of prototypes that a class without pictures gets
CHOICES = (*KINDS, "off")  # off: the base alone speaks of it
NEW_CLASSES = ("auto", *CHOICES)
