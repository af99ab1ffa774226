"""leafdb.storage"""
