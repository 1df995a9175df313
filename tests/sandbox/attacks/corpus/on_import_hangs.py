"""Never ends its import.

Stopped by: the host's timer for loading.
"""

import time

while True:
    time.sleep(1000)
