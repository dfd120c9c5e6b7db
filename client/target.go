package client

import (
	"net/http"
	"time"

	"github.com/tandemgo/tandem/retry"
)

// As many targets are remembered, and for as long, as breakers are in a default group.
const (
	maxTargets = 1024
	targetIdle = 10 * time.Minute
)

// An address finds a target without making a string of it first.
type address struct{ scheme, host string } // or the user's own key, and no host

// A target is what shares a breaker and a budget.
type target struct {
	key    string
	budget *retry.Budget
}

func newTarget(a address, shared *retry.Budget) *target {
	t := &target{key: a.scheme, budget: shared}
	if a.host != "" {
		t.key = a.scheme + "://" + a.host
	}
	if shared == nil {
		t.budget, _ = retry.NewBudget(retry.BudgetConfig{}) // the zero config has no fault
	}
	return t
}

func (t *Transport) targetOf(r *http.Request) *target {
	if t.keyOf != nil {
		return t.targets.Get(address{scheme: t.keyOf(r)})
	}
	return t.targets.Get(address{r.URL.Scheme, r.URL.Host})
}
