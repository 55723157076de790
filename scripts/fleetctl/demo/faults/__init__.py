"""Each way to fail, on one device without a control plane: `fleetctl demo faults`.

runner      runs the scenarios and shows how each ended
scenarios/  what is broken, one file each
device      the device they run on
engine_run  one run of the update engine, watched from outside
"""
