package natsbus

// bytesGuess is what a pull request is granted for each message before any was seen, and at least.
const bytesGuess = 16 << 10

// credit counts what the server may still deliver, in messages and, where bodies are bounded, in bytes.
type credit struct {
	limit   int // of bytes fetched and unsettled. Zero: none
	asked   int // messages the server may still deliver
	granted int // bytes the server may still deliver
	size    int // of a message, at most, as far as seen
}

// A grant is one pull request. Zero bytes: no limit.
type grant struct{ batch, bytes int }

// ask returns the pull request that fills free slots while held bytes are unsettled, or false if none is due. It waits
// until half of the slots are uncovered, so that a busy consumer sends one request for many messages, and the server
// always has something left to fulfil.
func (c *credit) ask(free, held int) (grant, bool) {
	batch := free - c.asked
	if batch <= 0 || batch < c.asked {
		return grant{}, false
	}
	if c.limit <= 0 {
		c.asked += batch
		return grant{batch: batch}, true
	}
	if c.asked == 0 {
		c.granted = 0 // an older server keeps what a fulfilled request had left to itself
	}
	room := c.limit - held - c.granted
	bytes := min(room, batch*max(2*c.size, bytesGuess))
	if held == 0 && c.asked == 0 && c.size >= room {
		// A message larger than the whole limit must pass some time: alone.
		c.asked, c.granted = 1, c.limit
		return grant{batch: 1}, true
	}
	if bytes < min(max(c.size, bytesGuess), c.limit) {
		return grant{}, false // until something is settled
	}
	c.asked += batch
	c.granted += bytes
	return grant{batch: batch, bytes: bytes}, true
}

// got counts a message of size bytes.
func (c *credit) got(size int) {
	c.asked = max(0, c.asked-1)
	c.granted = max(0, c.granted-size)
	c.size = max(size, c.size-c.size/64)
}

// returned counts what a pull request had left when the server ended it.
func (c *credit) returned(batch, bytes int) {
	c.asked = max(0, c.asked-batch)
	c.granted = max(0, c.granted-bytes)
}

// tooSmall says that the server ended a request because the next message was larger than left bytes.
func (c *credit) tooSmall(left int) { c.size = max(c.size, left+1) }

// reset forgets all requests.
func (c *credit) reset() { c.asked, c.granted = 0, 0 }
