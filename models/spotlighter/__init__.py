"""The Spotlighter head: keep the patches that matter, compare them with prototypes of each class.

options, select   what a head is; score every patch, keep the top K (docs/method.md, section 3)
rank              level the kept patches by rank, compare them with prototypes (section 4)
memory, whiten    the prototypes, and the space in which features are compared (section 2)
head              learned weights of ranks and levels: the logits that are added (section 5)
model             a prompt tuner with the head on it, and the loss (section 6)
"""
