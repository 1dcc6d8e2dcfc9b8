// go run aged.go URL SECONDS: GETs by Go's net/http over HTTP/2, from forty tasks, until the time is over; says how many
// there were and how many failed, and why. The server's connections live only so long: no request may be lost by that.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	seconds, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}}
	var lock sync.Mutex
	var tasks sync.WaitGroup
	asked, versions, failures := 0, map[string]bool{}, map[string]int{}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for range make([]int, 40) {
		tasks.Add(1)
		go func() {
			defer tasks.Done()
			for time.Now().Before(end) {
				version, failure := ask(client)
				lock.Lock()
				asked++
				versions[version] = true
				if failure != "" {
					failures[failure]++
				}
				lock.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		}()
	}
	tasks.Wait()
	failed := 0
	for why, count := range failures {
		fmt.Println(count, why)
		failed += count
	}
	fmt.Println(versions, asked > 1000, "many requests,", failed, "failed")
}

func ask(client *http.Client) (version, failure string) {
	answer, err := client.Get(os.Args[1])
	if err != nil {
		return "", err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return answer.Proto, err.Error()
	}
	if answer.StatusCode != 200 || len(body) == 0 {
		return answer.Proto, answer.Status
	}
	return answer.Proto, ""
}
