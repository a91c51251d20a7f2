package lease

import (
	"crypto/rand"
	"time"

	"golang.org/x/sys/unix"
)

// Read reads both clocks. Boot is CLOCK_BOOTTIME: unlike Go's monotonic clock it goes on while the machine is suspended.
func Read() Now {
	var ts unix.Timespec
	now := Now{Wall: time.Now()}
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME is not available: " + err.Error()) // every Linux since 2.6.39 has it
	}
	now.Boot = time.Duration(ts.Nano())
	return now
}

// NewID returns a random incarnation of 12 characters.
func NewID() string { return rand.Text()[:12] }

// Virtual reads both clocks from time.Now, for tests under testing/synctest, whose bubble CLOCK_BOOTTIME does not enter.
func Virtual() Now {
	t := time.Now()
	return Now{Wall: t, Boot: time.Duration(t.UnixNano())}
}
