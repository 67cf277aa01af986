"use strict";
const by=id=>document.getElementById(id);
const list=by("list"),rows=list?[...list.tBodies[0].rows]:[];
const severities=["low","medium","high"];
const value=(row,key)=>key==="severity"?severities.indexOf(row.dataset.severity)*1e6+Number(row.dataset.score||-1e3)
:["device","app"].includes(key)?row.dataset[key].toLowerCase():Number(row.dataset[key]);
const filters=["device","app","behaviour","severity","status"];
let order={key:"case",down:false};
function keeps(row){
const is=name=>by("by-"+name).value;
const d=row.dataset;
return d.device.toLowerCase().includes(is("device").toLowerCase())&&d.app.toLowerCase().includes(is("app").toLowerCase())
&&(!is("behaviour")||d.behaviours.split(" ").includes(is("behaviour")))
&&(!is("severity")||d.severity===is("severity"))&&(!is("status")||d.status===is("status"));
}
function show(){
const filtered=filters.some(name=>by("by-"+name).value);
const compare=(a,b)=>{const x=value(a,order.key),y=value(b,order.key);return (x<y?-1:x>y?1:0)*(order.down?-1:1)||a.dataset.case-b.dataset.case};
rows.sort(compare);
let found=0,cards=0;
for(const row of rows){
const card=by("c"+row.dataset.case),keep=keeps(row);
found+=keep;cards+=keep&&!!card;
row.hidden=!keep||!(card||filtered);
row.parentNode.append(row);
if(card){card.hidden=!keep;card.parentNode.append(card)}
}
const total=Number(by("tools").dataset.total);
let said=filtered?found+" of "+total+" cases match":cards+" of "+total+" cases shown";
if(filtered&&cards<found)said+=", "+cards+" of them with a card";
if(rows.length<total)said+="; "+rows.length+" were searched";
by("shown").textContent=said;
for(const head of list.querySelectorAll("th[data-key]"))
head.setAttribute("aria-sort",head.dataset.key!==order.key?"none":order.down?"descending":"ascending");
}
function cell(text){
const flat=text.replace(/\s+/g," ").trim();
return '"'+(/^[\s\u00ad\ufeff\u200b-\u200f\u2028-\u202e\u2060-\u2069]*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(flat)?"'":"")+flat.replace(/"/g,'""')+'"';
}
function csv(){
const heads=[...list.tHead.rows[0].cells].map(head=>cell(head.textContent));
const lines=rows.filter(row=>!row.hidden).map(row=>[...row.cells].map(c=>cell(c.querySelector("time")?.dateTime??c.textContent)).join(","));
return [heads.join(","),...lines].join("\r\n")+"\r\n";
}
function save(){
const link=document.createElement("a");
link.href=URL.createObjectURL(new Blob([csv()],{type:"text/csv"}));
link.download="cases.csv";link.click();URL.revokeObjectURL(link.href);
}
async function copy(button){
const source=by(button.dataset.copy);let word="Copied";
try{await navigator.clipboard.writeText(source.textContent)}
catch{getSelection().selectAllChildren(source);word="Selected; copy it with the keyboard"}
button.nextElementSibling.textContent=word;
}
function open(){
const id=decodeURIComponent(location.hash.slice(1)),target=id&&by(id);
if(target&&target.tagName==="DETAILS"){target.open=true;target.scrollIntoView()}
}
const zone=Intl.DateTimeFormat().resolvedOptions().timeZone;
if(zone&&zone!=="UTC"){
const two=n=>String(n).padStart(2,"0");
for(const time of document.querySelectorAll("time")){
const at=new Date(time.dateTime);
if(!Number.isNaN(at.getTime())){const own=document.createElement("span");own.className="own";
own.textContent=" ("+two(at.getMonth()+1)+"-"+two(at.getDate())+" "+two(at.getHours())+":"+two(at.getMinutes())+")";time.append(own)}
}
if(by("zone"))by("zone").textContent=", in brackets "+zone;
}
if(rows.length){
by("tools").hidden=false;
for(const name of filters)by("by-"+name).addEventListener("input",show);
for(const head of list.querySelectorAll("th[data-key]")){
const button=document.createElement("button");
button.type="button";button.textContent=head.textContent;head.replaceChildren(button);
button.addEventListener("click",()=>{order={key:head.dataset.key,down:order.key===head.dataset.key&&!order.down};show()});
}
by("save").addEventListener("click",save);by("print").addEventListener("click",()=>print());
show();
}
for(const button of document.querySelectorAll("button[data-copy]")){
button.hidden=false;button.addEventListener("click",()=>copy(button))}
addEventListener("hashchange",open);open();
