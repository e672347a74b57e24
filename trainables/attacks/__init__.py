"""Attacks: plain functions of a model, images and labels."""
