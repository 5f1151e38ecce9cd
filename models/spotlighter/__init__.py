"""The Spotlighter head: keep the patches that matter, compare them with prototypes of each class.

The files in the order of docs/method.md, whose sections they implement:

memory, whiten    prototypes, and the space in which features are compared (section 2)
select            score every patch, keep the top K (section 3)
rank              divide kept patches into two levels, compare them with prototypes (section 4)
head              weigh ranks and levels: the logits that are added (section 5)
model             a prompt tuner with the head on it, and the loss (section 6)
fit, evidence     weights fitted to pictures that a bank has not seen (section 6)
options           the config keys of a head
"""
