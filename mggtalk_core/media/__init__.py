"""Pictures, sound and video at the door: what users give is read and checked here, what they get is written here."""
