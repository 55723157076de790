"""Containers, behind one seam: Docker Compose for real, simulated for large fleets and bare machines."""
