"""Noise schedules. Every chapter's `alpha`, `sigma`, `lam` come from here."""

from dlib.schedule.base import CLEAN, NoiseLevel, NoiseSchedule
from dlib.schedule.continuous import cosine, edm, flow, sub_vp, ve, vp
from dlib.schedule.ladder import discrete, scaled_linear
