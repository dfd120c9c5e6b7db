package natsbus

// A place is how far a subscription has read: the last first delivery it has seen.
type place struct {
	stream uint64 // sequence in the stream
	seq    uint64 // of the delivery, in the consumer
	// broken: a reader needs a new consumer. doubt: the consumer may be gone.
	broken, doubt bool
}

// hole reports whether deliveries of the consumer before i are missing: normal in a group, where others get them, and
// never in a reader.
func (p *place) hole(i ackInfo) bool { return i.seq != p.seq+1 }

// back reports whether i goes back to where the consumer has been: its deliveries are numbered on and on.
func (p *place) back(i ackInfo) bool { return i.seq <= p.seq }

// saw notes one delivery and returns how many messages were dropped from the stream before the group had read them: the
// stream went further than the consumer has delivered. Redeliveries make the count too low, never too high.
func (p *place) saw(i ackInfo) (gap int64) {
	if i.deliveries > 1 {
		return 0
	}
	if i.stream > p.stream && i.seq > p.seq {
		gap = int64(i.stream-p.stream) - int64(i.seq-p.seq)
	}
	// Backwards, too: a server that lost its newest state delivers again as if for the first time.
	p.stream, p.seq = i.stream, i.seq
	return max(gap, 0)
}
