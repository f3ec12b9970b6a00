"""After a promotion: live feedback of the new champion against its predecessor's, and back again on a loss."""
