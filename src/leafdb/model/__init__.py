"""leafdb.model"""
