"""leafdb.ring"""
