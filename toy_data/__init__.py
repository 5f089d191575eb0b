"""The data of the book: exact mixtures, small real pictures, and the small teachers trained on
them.
"""

from toy_data.digits import digit_batches, digits_classifier, digits_split, digits_teacher
from toy_data.mixtures import gaussian, gmm5, labelled, ring8, three_far
from toy_data.shapes import caption_batches, captioned, shape_batches, shapes_teacher
from toy_data.students import distil, handed, learn
