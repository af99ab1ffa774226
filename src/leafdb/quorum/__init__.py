"""leafdb.quorum"""
