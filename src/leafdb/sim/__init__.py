"""leafdb.sim"""
